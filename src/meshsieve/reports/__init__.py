"""Results in the forms that people and programs want: tables, NDJSON, CSV, Arrow and Parquet, HTML. Pure functions."""
