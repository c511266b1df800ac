// SPDX-License-Identifier: GPL-2.0
/*
 * Shared-memory links of Partita (docs/links.md) as character devices /dev/hivc<id>.
 *
 * The interface is that of hvisor's guest driver: mmap offset 0 is the control table, 0x1000 on the shared memory; poll
 * reports each doorbell once; one ioctl lists the links. Where this driver differs, it is stricter: every open file sees
 * every doorbell, a mapping must lie inside the link, and only what the hypervisor lets this cell write can be mapped for
 * writing (a store elsewhere would stop the guest).
 */
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_irq.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#define MOST_LINKS 2
#define HYPERCALL_INFO 5

/* What the hypercall fills in. */
struct info {
	u64 count;
	u64 control[MOST_LINKS];
	u64 memory[MOST_LINKS];
	u32 id[MOST_LINKS];
	u32 intid[MOST_LINKS];
} __packed;

/* What the ioctl answers. */
struct user_info {
	s32 count;
	s32 id[MOST_LINKS];
};
#define GET_INFO _IOR('I', 0, void *)

/* The control table, in words. */
enum { IVC_ID, PEERS, SHARED_SIZE, OUTPUT_SIZE, PEER_ID };

struct link {
	struct miscdevice misc;
	char name[16];
	int irq;
	phys_addr_t control;
	phys_addr_t memory;
	u64 shared, output;
	u32 peers, peer;
	wait_queue_head_t wait;
	atomic_t doorbells;
};

struct opened {
	struct link *link;
	int seen;
	struct mutex lock;
};

static struct link links[MOST_LINKS];
static struct user_info known;

static long ask(struct info *info)
{
	/* Which of the kernel's own calls the hypervisor takes an HVC for depends on x7: keep it off them. */
	register u64 x0 asm("x0") = HYPERCALL_INFO;
	register u64 x1 asm("x1") = virt_to_phys(info);
	register u64 x7 asm("x7") = 0;

	asm volatile("hvc #0x4856" : "+r"(x0), "+r"(x1), "+r"(x7) : : "memory");
	return (long)x0;
}

static int hivc_open(struct inode *inode, struct file *file)
{
	struct link *link = container_of(file->private_data, struct link, misc);
	struct opened *opened = kzalloc(sizeof(*opened), GFP_KERNEL);

	if (!opened)
		return -ENOMEM;
	mutex_init(&opened->lock);
	opened->link = link;
	opened->seen = atomic_read(&link->doorbells);
	file->private_data = opened;
	return 0;
}

static int hivc_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static __poll_t hivc_poll(struct file *file, poll_table *table)
{
	struct opened *opened = file->private_data;
	__poll_t mask = 0;
	int now;

	poll_wait(file, &opened->link->wait, table);
	mutex_lock(&opened->lock);
	now = atomic_read(&opened->link->doorbells);
	if (now != opened->seen) {
		opened->seen = now;
		mask = EPOLLIN | EPOLLRDNORM;
	}
	mutex_unlock(&opened->lock);
	return mask;
}

static long hivc_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	if (command != GET_INFO)
		return -ENOTTY;
	return copy_to_user((void __user *)argument, &known, sizeof(known)) ? -EFAULT : 0;
}

/* Whether this cell may write all of [start, end) of the link's memory. */
static bool writable(const struct link *link, u64 start, u64 end)
{
	u64 own = link->shared + link->output * link->peer;

	return end <= link->shared || (start >= own && end <= own + link->output) ||
	       /* Peer 0's output section follows the shared one. */
	       (link->peer == 0 && end <= own + link->output);
}

static int hivc_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct link *link = ((struct opened *)file->private_data)->link;
	u64 size = vma->vm_end - vma->vm_start;
	u64 start, all = link->shared + link->output * link->peers;

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (vma->vm_pgoff == 0) {
		if (size != PAGE_SIZE)
			return -EINVAL;
		vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
		return remap_pfn_range(vma, vma->vm_start, PHYS_PFN(link->control), size, vma->vm_page_prot);
	}
	if (vma->vm_pgoff - 1 > all >> PAGE_SHIFT)
		return -EINVAL;
	start = ((u64)vma->vm_pgoff - 1) << PAGE_SHIFT;
	if (size > all - start)
		return -EINVAL;
	if (!writable(link, start, start + size)) {
		if (vma->vm_flags & VM_WRITE)
			return -EACCES;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
		vm_flags_clear(vma, VM_MAYWRITE);
#else
		vma->vm_flags &= ~VM_MAYWRITE;
#endif
	}
	return remap_pfn_range(vma, vma->vm_start, PHYS_PFN(link->memory + start), size, vma->vm_page_prot);
}

static const struct file_operations hivc_operations = {
	.owner = THIS_MODULE,
	.open = hivc_open,
	.release = hivc_release,
	.poll = hivc_poll,
	.unlocked_ioctl = hivc_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = hivc_mmap,
	.llseek = noop_llseek,
};

static irqreturn_t hivc_doorbell(int irq, void *data)
{
	struct link *link = data;

	atomic_inc(&link->doorbells);
	wake_up_interruptible(&link->wait);
	return IRQ_HANDLED;
}

static void remove(int count)
{
	while (count-- > 0) {
		misc_deregister(&links[count].misc);
		free_irq(links[count].irq, &links[count]);
	}
}

static int add(struct link *link, const struct info *info, struct device_node *node, int n)
{
	u32 __iomem *table = ioremap(info->control[n], PAGE_SIZE);
	int error;

	if (!table)
		return -ENOMEM;
	link->peers = readl(table + PEERS);
	link->shared = readl(table + SHARED_SIZE);
	link->output = readl(table + OUTPUT_SIZE);
	link->peer = readl(table + PEER_ID);
	iounmap(table);
	link->control = info->control[n];
	link->memory = info->memory[n];
	init_waitqueue_head(&link->wait);
	link->irq = of_irq_get(node, n);
	if (link->irq <= 0)
		return link->irq ? link->irq : -ENXIO;
	error = request_irq(link->irq, hivc_doorbell, 0, "hivc", link);
	if (error)
		return error;
	snprintf(link->name, sizeof(link->name), "hivc%u", info->id[n]);
	link->misc.minor = MISC_DYNAMIC_MINOR;
	link->misc.name = link->name;
	link->misc.fops = &hivc_operations;
	link->misc.mode = 0600;
	error = misc_register(&link->misc);
	if (error)
		free_irq(link->irq, link);
	else
		pr_info("hivc: /dev/%s: peer %u of %u, %llu bytes shared, %llu of each peer\n", link->name, link->peer,
			link->peers, link->shared, link->output);
	return error;
}

static int __init hivc_init(void)
{
	struct device_node *node = of_find_node_by_path("/hvisor_ivc_device");
	struct info *info;
	long answer;
	int error = 0, n;

	if (!node)
		return -ENODEV;
	info = kzalloc(sizeof(*info), GFP_KERNEL);
	if (!info) {
		of_node_put(node);
		return -ENOMEM;
	}
	answer = ask(info);
	if (answer || info->count > MOST_LINKS) {
		pr_err("hivc: the hypervisor answers %ld, %llu links\n", answer, info->count);
		error = -ENODEV;
	}
	for (n = 0; !error && n < info->count; n++) {
		error = add(&links[n], info, node, n);
		if (error)
			remove(n);
		known.id[n] = info->id[n];
	}
	known.count = n;
	kfree(info);
	of_node_put(node);
	return error;
}

static void __exit hivc_exit(void)
{
	remove(known.count);
}

module_init(hivc_init);
module_exit(hivc_exit);
MODULE_LICENSE("GPL");
MODULE_AUTHOR("Partita");
MODULE_DESCRIPTION("Shared-memory links between Partita's cells");
