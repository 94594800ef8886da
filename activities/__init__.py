"""Everything that touches the world, one class for each collaborator, each method an activity."""
