"""Verifies an export: takes an export and its fingerprint, loads it in the program that will run it, and reports differences."""
