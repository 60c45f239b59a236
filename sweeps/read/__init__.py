"""Read runs: directories as records, records as tables, statistics over seeds."""
