"""Takes a sensitivity file and a budget, and gives a plan. No torch: the object that measures plans on the model is passed in."""
