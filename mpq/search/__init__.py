"""Takes a sensitivity file and a budget, and gives a plan. No torch: the object that measures plans on the model is passed in."""

import warnings

# In a notebook without ipywidgets, importing optuna warns of a progress bar of tqdm that mpq does not use.
warnings.filterwarnings("ignore", message="IProgress not found")
