"""The actor: actions, observations, networks, diffusion, guidance, asynchronous inference."""
