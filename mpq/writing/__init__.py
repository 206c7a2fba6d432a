"""Files that appear whole or not at all, that one process writes at a time, and that say when they are damaged. No torch."""
