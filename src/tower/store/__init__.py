"""ROWS: the database, its schema and the blobs. No decisions."""
