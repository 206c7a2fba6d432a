"""The ways to find a layer's error, interchangeable behind `Method`: measured, from gradients, or from the weights alone."""
