from virtflow.cli import main

main()
