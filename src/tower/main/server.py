"""placeholder"""


def up(settings): ...
