"""Show: tables, figures, the report page, and runs on the screen."""
