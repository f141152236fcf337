"""The page of one or several artifacts: what was verified, measured and planned, as HTML or Markdown."""
