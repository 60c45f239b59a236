"""Judge a study: evidence from its runs, statistics, and a finding for each hypothesis."""
