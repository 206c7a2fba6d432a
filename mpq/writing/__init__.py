"""Writes files completely or not at all, by one process at a time, and with checksums that reveal damage. No torch."""
