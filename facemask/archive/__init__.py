"""Detection over archives: many machines, object stores, Parquet. Needs the extra "archive"; nothing else imports this."""
