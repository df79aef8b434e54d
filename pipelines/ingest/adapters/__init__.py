"""Layouts of exports: each adapter shows its files through canonical columns."""
