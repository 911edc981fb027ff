"""HAProxy: renders, validates and steers its configuration from the membership."""
