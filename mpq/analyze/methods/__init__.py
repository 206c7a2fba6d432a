"""The methods to find a layer's error, interchangeable behind `Method`: by measuring, from gradients, or from the weights alone."""
