"""Writing Parquet files whose integers are packed in whole bytes, which no library does."""
