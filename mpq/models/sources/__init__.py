"""Takes a file or folder and gives a `LoadedModel`, without running any code from the file unless the user trusts it."""
