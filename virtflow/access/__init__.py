"""Who may do what where, at which door: derived from the tenants' roles, and held against what was answered."""
