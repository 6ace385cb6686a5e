"""Pages: parts (text, tables, figures) become one HTML file that needs no network."""
