"""The main job from nothing to an improved policy: `dexpie demo`."""
