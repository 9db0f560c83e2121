"""MAY THEY: actions, roles and the Cedar engine that decides. Pure: no store, no clock."""
