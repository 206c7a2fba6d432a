"""The files that one stage hands to the next, and how many bytes they take. No torch."""
