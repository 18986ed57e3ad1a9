package bench;

import java.io.RandomAccessFile;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;

/** The counters of bench/progress.py: applied, pending, pairs, lists. */
final class Progress {
    private final MappedByteBuffer file;
    private long applied;
    private long pending;
    private long pairs;
    private long lists;

    Progress(String path) throws java.io.IOException {
        try (RandomAccessFile opened = new RandomAccessFile(path, "rw")) {
            file = opened.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, 32);
        }
        file.order(ByteOrder.LITTLE_ENDIAN);
    }

    synchronized void sent(int records, int counted) {
        pending += records;
        pairs += counted;
        file.putLong(8, pending);
        file.putLong(16, pairs);
    }

    synchronized void applied() {
        file.putLong(0, ++applied);
    }

    synchronized void merged() {
        file.putLong(8, --pending);
    }

    synchronized void listed(int count) {
        lists += count;
        file.putLong(24, lists);
    }
}
