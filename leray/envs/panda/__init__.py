"""MuJoCo-native Franka Panda tasks with the published definition of panda-gym 3.0.7."""


def register() -> None:
    """Register every Panda task in Gymnasium, as `leray/<id>` and, where it is free, as `<id>`.

    Calling it again changes nothing.
    """
    from leray.envs.panda.registration import register_all

    register_all()
