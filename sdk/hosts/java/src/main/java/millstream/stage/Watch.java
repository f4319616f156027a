package millstream.stage;

import java.time.Duration;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/** Interrupts a thread at a deadline, unless its work has ended before. */
final class Watch {
    private static final ScheduledThreadPoolExecutor TIMER = timer();

    private final Thread thread;
    private final Future<?> alarm;
    private boolean hasEnded;
    private boolean hasFired;

    Watch(Thread thread, Duration deadline) {
        this.thread = thread;
        alarm = TIMER.schedule(this::fire, deadline.toNanos(), TimeUnit.NANOSECONDS);
    }

    private static ScheduledThreadPoolExecutor timer() {
        var timer = new ScheduledThreadPoolExecutor(1, work -> {
            Thread thread = new Thread(work, "millstream-stage-deadlines");
            thread.setDaemon(true);
            return thread;
        });
        timer.setRemoveOnCancelPolicy(true);
        return timer;
    }

    private synchronized void fire() {
        if (!hasEnded) {
            hasFired = true;
            thread.interrupt();
        }
    }

    /** Ends the watch, and returns whether it has fired. The interrupt that it made is gone then. */
    synchronized boolean end() {
        if (!hasEnded) {
            hasEnded = true;
            alarm.cancel(false);
            if (hasFired) {
                Thread.interrupted();
            }
        }
        return hasFired;
    }
}
