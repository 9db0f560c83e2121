"""Where work runs. Nothing but `control.reconcile` and `main` imports this room."""
