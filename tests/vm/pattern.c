/*
 * For the guests of the crash tests: memory with known contents at a known
 * physical address, and what a dump says is there.
 *
 *   pattern hold START END   fills a page of physical memory in START..END with a
 *                            word, prints its address, and stays
 *   pattern read FILE ADDR   prints that word out of an ELF dump
 */
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
/* Pages taken at most until one lies where it is wanted. */
#define MOST (900u << 20) / PAGE

static const char word[] = "the quick brown fox was here";

static uint64_t physical(const void *page)
{
	uint64_t entry = 0;
	int map = open("/proc/self/pagemap", O_RDONLY);

	if (pread(map, &entry, 8, (uintptr_t)page / PAGE * 8) != 8)
		entry = 0;
	close(map);
	/* Bit 63: present; bits 0 to 54: the page frame's number. */
	return entry >> 63 ? (entry & ((1ull << 55) - 1)) * PAGE : 0;
}

static int hold(uint64_t start, uint64_t end)
{
	char *memory = mmap(NULL, (size_t)MOST * PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	madvise(memory, (size_t)MOST * PAGE, MADV_NOHUGEPAGE);
	for (size_t at = 0; at < MOST; at++) {
		char *page = memory + at * PAGE;
		uint64_t address;

		memcpy(page, word, sizeof(word));
		mlock(page, PAGE);
		address = physical(page);
		if (address >= start && address < end) {
			printf("0x%llx\n", (unsigned long long)address);
			fflush(stdout);
			pause();
		}
		/* Taken, so that the next one is another. */
		memset(page, 1, PAGE);
	}
	fprintf(stderr, "no page between %llx and %llx\n",
		(unsigned long long)start, (unsigned long long)end);
	return 1;
}

static int show(const char *name, uint64_t address)
{
	int file = open(name, O_RDONLY);
	Elf64_Ehdr header;
	char found[sizeof(word)] = "";

	if (pread(file, &header, sizeof(header), 0) != sizeof(header))
		return 1;
	for (int i = 0; i < header.e_phnum; i++) {
		Elf64_Phdr load;

		if (pread(file, &load, sizeof(load),
			  header.e_phoff + i * sizeof(load)) != sizeof(load))
			return 1;
		if (load.p_type != PT_LOAD || address < load.p_paddr ||
		    address - load.p_paddr >= load.p_filesz)
			continue;
		if (pread(file, found, sizeof(found) - 1,
			  load.p_offset + (address - load.p_paddr)) < 0)
			return 1;
		printf("%s\n", found);
		return 0;
	}
	fprintf(stderr, "the dump does not hold %llx\n", (unsigned long long)address);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "hold"))
		return hold(strtoull(argv[2], NULL, 16), strtoull(argv[3], NULL, 16));
	if (argc == 4 && !strcmp(argv[1], "read"))
		return show(argv[2], strtoull(argv[3], NULL, 16));
	return 2;
}
