"""Takes a sensitivity file and a budget, and gives a plan. No torch: whoever measures plans on the model is passed in."""
