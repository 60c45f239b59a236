"""Run many: plan a grid, submit its points to an engine, survive what happens to the workers."""
