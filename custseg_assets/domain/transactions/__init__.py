"""Lines of the log: cleaning, features of customers, presets of known exports, quality of periods."""
