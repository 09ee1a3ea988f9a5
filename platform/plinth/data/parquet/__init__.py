"""What Parquet files need beside the library that reads and writes them."""
