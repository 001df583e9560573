// What the application may listen to: metrics hooks, and the log.
/** Where a log goes that nobody chose: the standard error, a name and facts a line. */
export const STDERR = Object.freeze({
  info: (name, facts) => console.error(name, facts),
  warn: (name, facts) => console.error(name, facts),
  error: (name, facts) => console.error(name, facts),
});

/** `tell(hook, ...facts)`: a hook that throws stops no event. */
export function teller(metrics, log) {
  return (hook, ...facts) => {
    try {
      metrics[hook]?.(...facts);
    } catch (error) {
      log.error("audit_metrics_hook_failed", { hook, error: error?.name });
    }
  };
}
