"""Proves a load: takes an export and its fingerprint, loads it in the program that will run it, says what differs and where."""
