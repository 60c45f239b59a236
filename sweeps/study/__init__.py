"""A study: which runs belong to it, and what tables, figures and hypotheses are made of them, from one YAML file."""
