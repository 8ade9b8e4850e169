"""Other people's dataset formats, in and out. Each file needs an optional library and says which."""
