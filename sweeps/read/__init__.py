"""Read back what runs left: directories as records, records as tables, statistics over seeds."""
