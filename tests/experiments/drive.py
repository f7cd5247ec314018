"""The command line with the toy kind registered, as a process that tests can kill."""

import signal

if __name__ == "__main__":
    # a parent may ignore Ctrl-C, as the shell of a background job does, and pass that on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from toy_kinds import TOY

    from experiments import register
    from experiments.cli import main

    register(TOY)
    main()
