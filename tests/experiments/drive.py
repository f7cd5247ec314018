"""The command line with the toy kind registered, as a process that tests can kill."""

if __name__ == "__main__":
    from toy_kinds import TOY

    from experiments import register
    from experiments.cli import main

    register(TOY)
    main()
