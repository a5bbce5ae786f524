"""The stages of a build, one module each: `run(build)` does what is not done and says in a line what it came to."""
