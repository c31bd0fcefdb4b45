"""Reports of tables, and the page that lists them all."""
