"""The sequence diagram beside its evidence."""
