/* A file system with one file in memory, on the kernel's FUSE protocol: the least that a program
 * can do. What costs more than here, our driver costs.
 *
 *     null_fs MOUNTPOINT SIZE_BYTES
 *
 * Mounts (as root), writes "ready" and serves until it is unmounted. The structures are those of
 * linux/fuse.h; the file is called "data" and is as long as SIZE_BYTES. Nothing is checked.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MESSAGE_MAX_BYTES = (1 << 20) + 4096, TRUST_S = 3600, FILE_NODE = 2 };

static char message[MESSAGE_MAX_BYTES] __attribute__((aligned(4096)));
static char *bytes;
static size_t size_bytes;
static int device;

static void reply(uint64_t unique, int error, const void *body, size_t length)
{
	struct fuse_out_header head = {sizeof head + length, -error, unique};
	struct iovec parts[2] = {{&head, sizeof head}, {(void *)body, length}};

	if (writev(device, parts, length ? 2 : 1) < 0 && errno != ENOENT)
		perror("null_fs: a reply");
}

static struct fuse_attr attributes(uint64_t node)
{
	struct fuse_attr found = {.ino = node, .nlink = 1, .blksize = 4096};

	if (node == FUSE_ROOT_ID) {
		found.mode = S_IFDIR | 0755;
	} else {
		found.mode = S_IFREG | 0644;
		found.size = size_bytes;
	}
	return found;
}

static void answer_init(const struct fuse_in_header *head, const struct fuse_init_in *asked)
{
	struct fuse_init_out agreed = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = asked->max_readahead,
		.flags = asked->flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES |
					 FUSE_ATOMIC_O_TRUNC | FUSE_PARALLEL_DIROPS | FUSE_ASYNC_DIO |
					 FUSE_AUTO_INVAL_DATA | FUSE_DONT_MASK),
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = 1 << 20,
		.time_gran = 1,
		.max_pages = 256,
	};

	reply(head->unique, 0, &agreed, sizeof agreed);
}

static void answer_lookup(const struct fuse_in_header *head, const char *name)
{
	struct fuse_entry_out entry = {
		.nodeid = FILE_NODE, .entry_valid = TRUST_S, .attr_valid = TRUST_S};

	if (strcmp(name, "data") != 0) {
		reply(head->unique, ENOENT, NULL, 0);
		return;
	}
	entry.attr = attributes(FILE_NODE);
	reply(head->unique, 0, &entry, sizeof entry);
}

static void answer_attributes(const struct fuse_in_header *head)
{
	struct fuse_attr_out told = {.attr_valid = TRUST_S, .attr = attributes(head->nodeid)};

	reply(head->unique, 0, &told, sizeof told);
}

static void answer_open(const struct fuse_in_header *head)
{
	struct fuse_open_out opened = {.fh = 1, .open_flags = FOPEN_KEEP_CACHE};

	reply(head->unique, 0, &opened, sizeof opened);
}

static void answer_read(const struct fuse_in_header *head, const struct fuse_read_in *asked)
{
	size_t left = asked->offset < size_bytes ? size_bytes - asked->offset : 0;

	reply(head->unique, 0, bytes + asked->offset, left < asked->size ? left : asked->size);
}

static void answer_write(const struct fuse_in_header *head, const struct fuse_write_in *asked)
{
	struct fuse_write_out written = {.size = asked->size};

	if (asked->offset + asked->size > size_bytes) {
		reply(head->unique, EFBIG, NULL, 0);
		return;
	}
	memcpy(bytes + asked->offset, asked + 1, asked->size);
	reply(head->unique, 0, &written, sizeof written);
}

static void answer(const struct fuse_in_header *head)
{
	const void *rest = head + 1;
	struct fuse_statfs_out space = {{0}};

	switch (head->opcode) {
	case FUSE_INIT:
		answer_init(head, rest);
		break;
	case FUSE_LOOKUP:
		answer_lookup(head, rest);
		break;
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		answer_attributes(head);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		answer_open(head);
		break;
	case FUSE_READ:
		answer_read(head, rest);
		break;
	case FUSE_WRITE:
		answer_write(head, rest);
		break;
	case FUSE_STATFS:
		reply(head->unique, 0, &space, sizeof space);
		break;
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_DESTROY:
		reply(head->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		reply(head->unique, ENOSYS, NULL, 0);
	}
}

int main(int count, char **words)
{
	char options[100];

	if (count != 3)
		return 2;
	size_bytes = strtoul(words[2], NULL, 10);
	bytes = malloc(size_bytes);
	device = open("/dev/fuse", O_RDWR);
	if (bytes == NULL || device < 0) {
		perror("null_fs");
		return 1;
	}
	memset(bytes, 'x', size_bytes);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
	if (mount("null_fs", words[1], "fuse.null_fs", MS_NOSUID | MS_NODEV, options) != 0) {
		perror("null_fs: mount");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		ssize_t length = read(device, message, sizeof message);

		if (length >= (ssize_t)sizeof(struct fuse_in_header))
			answer((const struct fuse_in_header *)message);
		else if (errno == ENODEV)
			return 0;
		else if (errno != ENOENT && errno != EINTR) {
			perror("null_fs: a request");
			return 1;
		}
	}
}
