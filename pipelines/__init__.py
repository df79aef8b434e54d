"""The `endcap` command, and the jobs that join the packages."""
