"""What virtflow does, as durable workflows that read like the sequence diagram. Deterministic; no I/O."""
