// A process that does nothing until it is ended or its parent is gone.
process.once('disconnect', () => process.exit(0));
