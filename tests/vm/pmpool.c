// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Stands in for the consumer of pools in the lab's CONFIG_OF kernel: what the
 * RFC series does with a pool is not here. Like its consumer, this looks at
 * pmpool=BASE,SIZE early, refuses a pool in which somebody reserved memory
 * before (the kernel's own text, initrd, setup_data), and else keeps it.
 */
#include <linux/errno.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/memblock.h>

static int __init pmpool(char *value)
{
	phys_addr_t base, size;

	base = memparse(value, &value);
	if (*value != ',')
		return -EINVAL;
	size = memparse(value + 1, NULL);
	if (memblock_is_region_reserved(base, size)) {
		pr_err("pmpool: %pa,%pa is taken\n", &base, &size);
		return 0;
	}
	memblock_reserve(base, size);
	pr_info("pmpool: %pa,%pa is kept\n", &base, &size);
	return 0;
}
early_param("pmpool", pmpool);
