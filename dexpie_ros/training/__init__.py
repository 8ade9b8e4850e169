"""Training of the actor: windows, recipes, one loop, checkpoints."""
