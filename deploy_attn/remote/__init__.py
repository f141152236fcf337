"""Running a capsule on boards over SSH: copied once, watched while it runs, its verdict brought back."""
